# Tests of the policy beside this file: each rule `test_…` must hold. A test shows the policy as much of `input` as
# its rules look at.
package locule_test

import data.locule

plan(name, byoc) := {
	"components": [{"name": name, "path": "executors.#1.executor"}],
	"job": {"byoc": byoc},
}

test_what_is_not_agreed_is_refused if {
	review := locule.review with input as plan("locule.demo.LogisticRegression", false)
	not review.allow
	some finding in review.deny
	finding.code == "not-agreed"
	finding.path == "executors.#1.executor"
}

test_anything_else_is_allowed if {
	review := locule.review with input as plan("locule.nvflare.NPTrainer", false)
	review.allow
	count(review.warn) == 0
}

test_code_of_its_own_is_remarked if {
	review := locule.review with input as plan("locule.nvflare.NPTrainer", true)
	review.allow
	count(review.warn) == 1
}
