"""The Grafana dashboards of the chart: what they show, as data.

`make dashboards` writes them to `charts/seal/files/dashboards` with Grafana's own library
(grafana-foundation-sdk); `make monitor` asks a Prometheus what each panel asks, and draws it.
"""
