#!/bin/sh
# Make the passwords of database and broker, and the URLs that contain them, in ./secrets:
#
#   sh docker/make-secrets.sh
#
# Existing files are kept: a database keeps the passwords that it was created with.
#
# Compose mounts the files with the owner and the mode that they have here, and the services run as
# different users. So everybody may read the files, but only their owner may enter the folder.
set -eu
umask 077
cd "$(dirname "$0")/.."
mkdir -p secrets
chmod 0700 secrets

random() {
  head -c 24 /dev/urandom | od -An -v -tx1 | tr -d ' \n'
}

write() { # NAME CONTENT
  printf '%s\n' "$2" >"secrets/$1.new"
  chmod 0444 "secrets/$1.new"
  mv "secrets/$1.new" "secrets/$1"
}

for name in postgres_password postgres_owner_password postgres_node_password; do
  [ -e "secrets/$name" ] || write "$name" "$(random)"
done
database=postgres:5432/epvs
password=$(cat secrets/postgres_owner_password)
write database_owner_url "postgresql+psycopg://epvs_owner:$password@$database"
password=$(cat secrets/postgres_node_password)
write database_url "postgresql+psycopg://epvs_node:$password@$database"

if [ ! -e secrets/redis_configuration ]; then
  write redis_configuration "requirepass $(random)"
fi
password=$(sed -n 's/^requirepass //p' secrets/redis_configuration)
write broker_url "redis://:$password@redis:6379/0"
