#!/bin/sh
# PostgreSQL with a database for lectern and one for Prefect. Only the containers of the trial reach it.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
data=/var/lib/postgresql/trial
if [ ! -s "$data/PG_VERSION" ]; then
    "$bin/initdb" -D "$data" -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
    echo "host all all all trust" >>"$data/pg_hba.conf"
    "$bin/pg_ctl" -D "$data" -w -o "-c listen_addresses=" start >/dev/null
    for name in lectern prefect; do
        psql -q -c "CREATE ROLE $name LOGIN" -c "CREATE DATABASE $name OWNER $name"
    done
    "$bin/pg_ctl" -D "$data" -w stop >/dev/null
fi
exec "$bin/postgres" -D "$data" -c "listen_addresses=*" -c max_connections=200
