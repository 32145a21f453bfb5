"""Whether a backend answers: the rise/fall state machine (`state`, pure) and one check (`probes`).

When checks run and what a change of state leads to is the agent's business (`agent.health_runner`).
"""
