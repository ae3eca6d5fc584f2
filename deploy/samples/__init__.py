"""The sample posts and how their pictures were drawn; `deploy.sample_posts` reads them."""
