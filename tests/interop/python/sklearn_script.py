"""A training script of nvflare's Client API: logistic regression by scikit-learn, one epoch a round.

    sklearn_script.py --data FILE --first ROW --last ROW

The rows of FILE from the first to before the last train, the first hundred judge; the label comes first.
"""

import argparse

import numpy
import nvflare.client as flare
from nvflare.client.tracking import SummaryWriter
from sklearn.linear_model import SGDClassifier
from sklearn.metrics import roc_auc_score

parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
parser.add_argument("--first", type=int, required=True)
parser.add_argument("--last", type=int, required=True)
arguments = parser.parse_args()
rows = numpy.loadtxt(arguments.data, delimiter=",")
train, held_out = rows[arguments.first : arguments.last], rows[:100]

flare.init()
writer = SummaryWriter()
classifier = None
while flare.is_running():
    received = flare.receive()
    if received is None:
        break
    if classifier is None:
        settings = dict(received.params)
        classes = numpy.arange(settings.pop("classes"))
        classifier = SGDClassifier(max_iter=1, tol=None, warm_start=True, random_state=0, **settings)
        classifier.classes_ = classes
        classifier.coef_ = numpy.zeros((1, train.shape[1] - 1))
        classifier.intercept_ = numpy.zeros(1)
    else:
        classifier.coef_, classifier.intercept_ = received.params["coef"], received.params["intercept"]
    classifier.fit(train[:, 1:], train[:, 0])
    auc = roc_auc_score(held_out[:, 0], classifier.decision_function(held_out[:, 1:]))
    writer.add_scalar("auc", auc, received.current_round)
    flare.send(
        flare.FLModel(
            params={"coef": classifier.coef_, "intercept": classifier.intercept_},
            metrics={"AUC": auc},
            meta={"NUM_STEPS_CURRENT_ROUND": len(train)},
        )
    )
