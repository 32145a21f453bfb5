"""Pure arithmetic of balancing: schedule tables (Maglev, rings, regions) and the weight controller.

Everything here is a function of its arguments. Kernel maps are written by `shaper.kernel`, which
flows are live is known to `shaper.agent`; neither is imported.
"""
