"""The fault suite: real worker processes under load, real signals, a server that is stopped and killed, connections that
are cut and go silent; and an oracle that afterwards counts what was lost and what was done twice.

``app.py`` is the application that the processes run, ``fleet.py`` the processes, ``load.py`` who enqueues, ``server.py``
a PostgreSQL of its own, ``proxy.py`` the network, ``oracle.py`` the judgement. ``python -m tests.faults`` is the soak.
"""
