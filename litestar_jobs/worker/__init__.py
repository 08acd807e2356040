"""The worker: rows become work, work becomes an outcome, outcomes become rows.

``run.py`` owns the parts and every task; nothing here knows of requests or of Litestar.
"""
