#!/bin/bash
# Start PostgreSQL as the official image does, as far as docker-compose.yml relies on it: first start
# with POSTGRES_USER, POSTGRES_DB, POSTGRES_PASSWORD_FILE and the scripts of docker-entrypoint-initdb.d.
set -euo pipefail
export PGDATA=/var/lib/postgresql/data PATH=/usr/lib/postgresql/15/bin:$PATH
[[ $# -eq 0 ]] || exec "$@"
if [[ ! -s $PGDATA/PG_VERSION ]]; then
  chmod 0700 "$PGDATA"
  initdb --locale=C.UTF-8 --username="$POSTGRES_USER" --pwfile="$POSTGRES_PASSWORD_FILE" --auth-local=trust --auth-host=scram-sha-256 >/dev/null
  echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
  pg_ctl --wait --options="-c listen_addresses=''" start
  createdb --username="$POSTGRES_USER" "$POSTGRES_DB"
  for script in /docker-entrypoint-initdb.d/*.sql; do
    psql -v ON_ERROR_STOP=1 --no-psqlrc --username="$POSTGRES_USER" --dbname="$POSTGRES_DB" --file="$script"
  done
  pg_ctl --wait --mode=fast stop
fi
exec postgres -c listen_addresses='*'
