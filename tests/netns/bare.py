"""A bare gateway for reconcile tests: two devices in a namespace, no clients, no backends. Its
fixtures stand in conftest."""

from __future__ import annotations

from collections.abc import Callable

CONFIG = """\
version: 1
interfaces:
  wan: {device: wan0, role: client, bandwidth: 100mbit}
  lan: {device: lan0, role: backend, bandwidth: 100mbit}
classes:
  web: {rate: 40mbit, ceil: 100mbit, priority: 2}
  api: {parent: web, rate: 10mbit, ceil: 50mbit, priority: 1}
  bulk: {rate: 10mbit, ceil: 80mbit, priority: 6}
default_class: bulk
services:
  www:
    address: 198.51.100.10
    port: [80, 81]
    protocol: tcp
    scheduler: round-robin
    class: web
    backends:
      s1: {address: 203.0.113.11, port: 8080, weight: 3}
      s2: {address: 203.0.113.12, port: 8080}
  www6:
    address: 2001:db8:1::10
    port: 80
    protocol: tcp
    scheduler: maglev
    class: api
    backends:
      s1: {address: 2001:db8:2::11, port: 8080}
      s2: {address: 2001:db8:2::12, port: 8080}
"""

Shaper = Callable[..., str]
