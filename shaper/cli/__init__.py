"""One verb a file, each a `run` that returns an exit code.

stdout is data, stderr is narration. Errors are `ShaperError`s, printed by `shaper.__main__`. A verb
imports what it needs when it runs, so that `shaper --help` needs neither bcc nor root.
"""
