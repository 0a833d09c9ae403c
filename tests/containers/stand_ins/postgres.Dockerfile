ARG BASE
FROM ${BASE}
COPY postgres.sh /usr/local/bin/
# Modes as in the official image: an engine gives a tmpfs the mode of the folder below it.
RUN install --directory --owner=postgres --group=postgres --mode=1777 /var/lib/postgresql/data \
 && install --directory --owner=postgres --group=postgres --mode=3777 /var/run/postgresql
USER postgres
ENTRYPOINT ["bash", "/usr/local/bin/postgres.sh"]
