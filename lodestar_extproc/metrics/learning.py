"""What is read of the learners whenever Prometheus asks."""

from lodestar_extproc.metrics.metric import ENDPOINT, POOL, counter, gauge

LEARNER_STATE = gauge(
    "lodestar_learner_state",
    ("pool", "state"),
    "1 for what holds now: `model` decides, `burn_in`, or `untrusted`; 0 for the others.",
    "`untrusted` for long: the model does not understand this fleet; the fallback decides.",
)
LEARNER_PREDICTING = gauge(
    "lodestar_learner_predicting",
    ("pool", "model"),
    "1 for the model that predicts now; with `predictor: auto` one of several.",
    "Changing often: the models are equally good, or equally bad; look at the error.",
)
LEARNER_SAMPLES = counter(
    "lodestar_learner_samples_total",
    ("pool", "model"),
    "First tokens learned from.",
    "Standing still under load: no first tokens are seen.",
)
LEARNER_IGNORED = counter(
    "lodestar_learner_ignored_samples_total",
    ("pool", "cause"),
    "Samples that taught nothing: `rejected`, no measurement; `uninformative`, given up before "
    "the time predicted.",
    "Many `uninformative`: clients are impatient. `rejected`: clocks or timings are broken.",
)
LEARNER_ERROR = gauge(
    "lodestar_learner_error_ratio",
    POOL,
    "Median error of the model's last 50 predictions: |observed - predicted| over the smaller of "
    "both, so that half and double are 1; absent before the first.",
    "Above `trust_max_error_ratio` the fallback decides.",
)
LEARNER_TRIVIAL_ERROR = gauge(
    "lodestar_learner_trivial_error_ratio",
    POOL,
    "The same for always predicting the median TTFT.",
    "A model that is no better has learned nothing.",
)
LEARNER_COVERAGE = gauge(
    "lodestar_learner_coverage_ratio",
    POOL,
    "Share of TTFTs inside their predicted interval; 0.8 is honest.",
    "Far from 0.8 the intervals mean little.",
)
ENDPOINT_SAMPLES = counter(
    "lodestar_endpoint_samples_total",
    ENDPOINT,
    "First tokens learned from this endpoint.",
    "Few: its predictions lean on its accelerator's others.",
)
ENDPOINT_ERROR = gauge(
    "lodestar_endpoint_error_ratio",
    ENDPOINT,
    "Median error of the last predictions for it, over the smaller of predicted and observed; "
    "absent before the first.",
    "High on one endpoint: something else runs on it.",
)
ENDPOINT_DRIFTS = counter(
    "lodestar_endpoint_drifts_total",
    ENDPOINT,
    "Times its speed was found to have changed.",
    "Often: the hardware throttles or is shared.",
)
