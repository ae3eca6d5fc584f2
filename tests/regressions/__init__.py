"""What is known to go wrong between Faust and Kafka, a test a row: the documented way fails, ours does not."""
