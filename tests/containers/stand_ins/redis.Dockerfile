ARG BASE
FROM ${BASE}
RUN install --directory --owner=redis --group=redis /data
WORKDIR /data
CMD ["redis-server"]
