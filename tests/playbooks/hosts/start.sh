#!/bin/sh
# sshd stands beside supervisord, not under it: the playbooks stop and reload all that supervisord runs.
set -eu
mkdir -p /run/sshd /var/lib/apt/periodic
touch /var/lib/apt/lists /var/lib/apt/periodic/update-success-stamp  # what the image has fetched is new enough
ssh-keygen -q -A
/usr/sbin/sshd
exec /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf
