#!/bin/sh
# Make the passwords of database and broker, and the URLs that contain them, in ./secrets:
#
#   sh docker/make-secrets.sh
#
# Existing files are kept: a database keeps the password that it was created with. A
# POSTGRES_PASSWORD in .env, where earlier versions had it, is taken over; delete it there afterwards.
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

if [ ! -e secrets/postgres_password ]; then
  password=
  if [ -e .env ]; then
    password=$(sed -n "s/^POSTGRES_PASSWORD=[\"']\{0,1\}\([^\"']*\).*/\1/p" .env | tail -n 1)
  fi
  case $password in
    *[!A-Za-z0-9]*)
      echo "POSTGRES_PASSWORD in .env may contain letters and digits only: it becomes part of a URL." >&2
      exit 1
      ;;
  esac
  write postgres_password "${password:-$(random)}"
fi
password=$(cat secrets/postgres_password)
write database_url "postgresql+psycopg://epvs:$password@postgres:5432/epvs"

if [ ! -e secrets/redis_configuration ]; then
  write redis_configuration "requirepass $(random)"
fi
password=$(sed -n 's/^requirepass //p' secrets/redis_configuration)
write broker_url "redis://:$password@redis:6379/0"
