"""The pure half of apply: what should be, what differs, and the operations that close the gap.

`handles` gives names their kernel numbers, `desired` builds the whole state from a `Gateway`,
`plan` compares it with what was observed and returns `operations` in a safe order. Nothing here
touches the kernel: `shaper.agent.engine` observes before and executes after.
"""
