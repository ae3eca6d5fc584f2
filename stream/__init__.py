"""The wire: records, topics, Kafka, Redis and images. Never imports torch, `model`, `workers` or `deploy`."""
