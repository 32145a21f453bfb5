"""From the class tree of a configuration to tc objects, and from differences to operations. Pure.

`htb` computes what HTB wants to know of a rate, `leaf` the queue at the end of a class, `tree` the
whole of one device, `plan` what leads from one tree to another. Every spec holds what the kernel
will report once it is set, so comparing needs no tolerances. Reading and writing the kernel is
`shaper.kernel.tc`.
"""
