"""Reads metrics from standard input with the parser of Prometheus' own client, and tells of them as JSON.

For each family: its type, and its samples with their labels, values and exemplars. Histograms have to be as
they must: buckets that only grow, the last of them the count.
"""

import json
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families

families = {}
for family in text_string_to_metric_families(sys.stdin.read()):
    samples = []
    for sample in family.samples:
        exemplar = sample.exemplar and {
            "labels": sample.exemplar.labels,
            "value": sample.exemplar.value,
            "timestamp": float(sample.exemplar.timestamp or 0),
        }
        samples.append({
            "name": sample.name,
            "labels": sample.labels,
            "value": sample.value,
            "exemplar": exemplar,
        })
        if exemplar and sample.labels["le"] != "+Inf":
            assert exemplar["value"] <= float(sample.labels["le"]), sample
    families[family.name] = {"type": family.type, "samples": samples}
json.dump(families, sys.stdout)
