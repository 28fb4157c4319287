"""How messages travel between replicas: the port, RabbitMQ behind it, and memory behind it."""
