"""The report of a run: one self-contained HTML page."""

from hica_server.report.extras import Cluster, Embedding, Example, Extras
from hica_server.report.html import write_report

__all__ = ["Cluster", "Embedding", "Example", "Extras", "write_report"]
