# Debian's RabbitMQ with the management and Prometheus plugins.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends rabbitmq-server \
    && rm -rf /var/lib/apt/lists/* \
    && ln -s /usr/lib/rabbitmq/lib/rabbitmq_server-* /opt/rabbitmq \
    && mkdir /data && chown 10001:10001 /data
COPY rabbitmq.conf enabled_plugins /etc/replicad/
# The node's name must not depend on the container's. RUNNING_UNDER_SYSTEMD makes the script replace
# itself by the server, which so becomes process 1 and gets the signals.
ENV HOME=/data \
    RABBITMQ_NODENAME=rabbit@localhost \
    RABBITMQ_MNESIA_BASE=/data/mnesia \
    RABBITMQ_LOG_BASE=/data/log \
    RABBITMQ_LOGS=- \
    ERL_CRASH_DUMP=/data/erl_crash.dump \
    RABBITMQ_CONFIG_FILE=/etc/replicad/rabbitmq.conf \
    RABBITMQ_ENABLED_PLUGINS_FILE=/etc/replicad/enabled_plugins \
    RUNNING_UNDER_SYSTEMD=true
USER 10001:10001
VOLUME /data
EXPOSE 5672 15672 15692
CMD ["/opt/rabbitmq/sbin/rabbitmq-server"]
