#!/bin/sh
# The command line with the service's settings, secrets and state, for root: install it as /usr/local/sbin/monitord.
export MONITORD_CONFIG="${MONITORD_CONFIG:-/etc/monitord/monitord.toml}"
export CREDENTIALS_DIRECTORY="${CREDENTIALS_DIRECTORY:-/etc/monitord/secrets}"
export STATE_DIRECTORY="${STATE_DIRECTORY:-/var/lib/monitord}"
exec /opt/monitord/bin/monitord "$@"
