# What this site asks of a job before anything of it is built.
#
# `input` describes the whole plan: every component with its name, arguments and place, the job, the site, the files
# that came with it. The host asks for `review`, once for a plan; a policy without an answer refuses.
package locule

review := {"allow": count(deny) == 0, "deny": deny, "warn": warn}

# Components that are not agreed here, by the beginnings of their full names.
refused := ["locule.demo."]

deny contains finding if {
	some component in input.components
	some beginning in refused
	startswith(component.name, beginning)
	finding := {
		"code": "not-agreed", # a stable word, for programs
		"message": sprintf("%s is not agreed here", [component.name]), # a sentence, for people
		"path": component.path, # the place in the job's configuration
		"public": true, # whoever submitted the job may read the message
	}
}

# A remark: the job runs, and somebody should look.
warn contains finding if {
	input.job.byoc
	finding := {"code": "own-code", "message": "the job brings code of its own"}
}
