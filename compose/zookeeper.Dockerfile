# Debian's ZooKeeper, one server.
ARG BASE_IMAGE=debian:bookworm-slim
FROM ${BASE_IMAGE}
RUN apt-get update \
    && apt-get install -y --no-install-recommends zookeeper \
    && rm -rf /var/lib/apt/lists/* \
    && mkdir /data && chown 10001:10001 /data
COPY zoo.cfg log4j.properties /etc/replicad/
USER 10001:10001
VOLUME /data
EXPOSE 2181
CMD ["java", "-Xmx128m", "-Dlog4j.configuration=file:/etc/replicad/log4j.properties", "-cp", \
     "/usr/share/java/zookeeper.jar:/usr/share/java/zookeeper-jute.jar:/usr/share/java/slf4j-api.jar:/usr/share/java/slf4j-log4j12.jar:/usr/share/java/log4j-1.2.jar:/usr/share/java/netty-all.jar:/usr/share/java/snappy-java.jar:/usr/share/java/metrics-core.jar:/usr/share/java/commons-cli.jar", \
     "org.apache.zookeeper.server.quorum.QuorumPeerMain", "/etc/replicad/zoo.cfg"]
