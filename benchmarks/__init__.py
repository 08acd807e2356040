"""Benchmarks that anybody can run: ``python -m benchmarks run`` and ``python -m benchmarks compare OLD.json NEW.json``."""
