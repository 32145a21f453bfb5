"""The demo behind scripts/demo: a lab, one configuration file, the real agent, real traffic.

`settings` (what is asked for: rates, weights, tolerances), `config` (the file), `balance` and
`shaping` (traffic and what was measured, as rows), `report` (rows and tables), `__main__` (the
order of things). Every row that misses what was asked makes the demo fail.
"""
