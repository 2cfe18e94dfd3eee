"""The Log port on Kafka, its topics, and what connects to both."""
