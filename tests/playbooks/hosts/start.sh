#!/bin/sh
# sshd stands beside supervisord, not under it: the playbooks stop and reload all that supervisord runs.
set -eu
mkdir -p /run/sshd
ssh-keygen -q -A
/usr/sbin/sshd
exec /usr/bin/supervisord -n -c /etc/supervisor/supervisord.conf
