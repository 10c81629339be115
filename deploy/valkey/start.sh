#!/bin/sh
# Start Valkey in a container with its users: the password is read from a secret and stands in a file in memory alone.
set -eu
umask 077
password=$(cat /run/secrets/valkey-password)
cat > /run/valkey/users.acl <<USERS
user default off resetkeys resetchannels -@all
user monitord on >$password resetkeys resetchannels ~mon:* &mon:* +@all -@admin -@dangerous +info +config|get
USERS
exec valkey-server /etc/valkey/valkey.conf --aclfile /run/valkey/users.acl --dir /data --bind 0.0.0.0
