#!/usr/bin/env bash
# Runs in the guest as root, at the first `vagrant up` and at every `vagrant provision`.
set -euo pipefail

/vagrant/scripts/setup
ln -sf /vagrant/.venv/bin/shaper /usr/local/bin/shaper
