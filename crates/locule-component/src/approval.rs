//! From a judged plan to components.

use std::fmt;
use std::sync::Arc;

use crate::{
    BuildCx, BuildError, Built, CheckerFailure, CheckerReport, ComponentSpec, ConfigPath, Decision, Denial,
    ExecutorTable, FilterChains, Finding, Kind, Observer, Plan, PlanDigest, Refused, Registry, Settings,
    TaskFilter, Workflow,
};

/// A plan that no checker denied: the only thing that can be built.
#[derive(Debug)]
pub struct ApprovedPlan {
    plan: Plan,
    remarks: Vec<(String, Finding)>,
}

impl ApprovedPlan {
    pub(crate) fn from_reports(plan: Plan, reports: Vec<CheckerReport>) -> Result<ApprovedPlan, Refused> {
        let mut denials = Vec::new();
        let mut remarks = Vec::new();
        for CheckerReport { checker, plan: judged, outcome } in reports {
            if judged != plan.digest {
                denials.push(failed(&checker, "judged another plan".to_owned()));
                continue;
            }
            let checked = outcome.and_then(|verdicts| {
                plan.check_verdicts(&verdicts).map_err(CheckerFailure::Error)?;
                Ok(verdicts)
            });
            let verdicts = match checked {
                Ok(verdicts) => verdicts,
                Err(failure) => {
                    denials.push(failed(&checker, failure.to_string()));
                    continue;
                }
            };
            for verdict in verdicts {
                match verdict.decision {
                    Decision::Allow => {}
                    Decision::Warn => {
                        remarks
                            .extend(verdict.findings.into_iter().map(|finding| (checker.clone(), finding)));
                    }
                    Decision::Deny if verdict.findings.is_empty() => {
                        let path = verdict.component.clone();
                        let (code, message) = ("denied".to_owned(), "denied without a reason".to_owned());
                        let finding = Finding { code, message, path, public: false };
                        denials.push(denial(&plan, &checker, &verdict.component, finding));
                    }
                    Decision::Deny => {
                        let findings = verdict.findings.into_iter();
                        denials.extend(findings.map(|f| denial(&plan, &checker, &verdict.component, f)));
                    }
                }
            }
        }
        if denials.is_empty() {
            Ok(ApprovedPlan { plan, remarks })
        } else {
            Err(Refused { plan: plan.digest, findings: denials })
        }
    }

    pub(crate) fn like(plan: Plan, earlier: &PlanDigest) -> Result<ApprovedPlan, Refused> {
        if plan.digest == *earlier {
            return Ok(ApprovedPlan { plan, remarks: Vec::new() });
        }
        let message = "it is not the plan that was approved".to_owned();
        Err(Refused { plan: plan.digest, findings: vec![Denial::plan_changed(message)] })
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What checkers had to remark without denying: the checker's id, and its finding.
    pub fn remarks(&self) -> &[(String, Finding)] {
        &self.remarks
    }

    /// Makes every component that is not disabled: services before all others, and those among arguments before
    /// their owners.
    ///
    /// # Errors
    /// The first constructor's error, as [`BuildError::Component`]; what was made before is dropped.
    pub fn build(self, registry: &Registry, cx: &BuildCx<'_>) -> Result<Assembled, BuildError> {
        let plan = &self.plan;
        let mut cx = cx.for_component(cx.id);
        for (id, thing) in registry.provided() {
            cx = cx.with_service(id, Arc::clone(thing));
        }
        let mut built: Vec<Option<Built>> = plan.components.iter().map(|_| None).collect();
        let (services, others): (Vec<_>, Vec<_>) =
            plan.components.iter().enumerate().partition(|(_, spec)| is_of_service(plan, spec));
        for (index, spec) in services.into_iter().chain(others) {
            if !is_built(plan, spec) {
                continue;
            }
            let one = build_one(spec, registry, &cx, &mut built)?;
            if let Built::Service(service) = &one
                && spec.ancestors.is_empty()
            {
                cx = cx.with_service(spec.label(), Arc::clone(service));
            }
            built[index] = Some(one);
        }
        Ok(assemble(plan, built))
    }
}

/// What a plan became.
#[derive(Default)]
#[non_exhaustive]
pub struct Assembled {
    /// By task; of a site.
    pub executors: ExecutorTable,
    /// Under their ids, in the order in which they run; of a server.
    pub workflows: Vec<(String, Box<dyn Workflow>)>,
    /// By task, chain and direction.
    pub filters: FilterChains,
    /// Under their ids, in the order in which they are told; for an [`EventBus`](crate::EventBus).
    pub observers: Vec<(String, Box<dyn Observer>)>,
    /// What the job sets besides its components.
    pub settings: Settings,
}

impl fmt::Debug for Assembled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workflows: Vec<&str> = self.workflows.iter().map(|(id, _)| id.as_str()).collect();
        let observers: Vec<&str> = self.observers.iter().map(|(id, _)| id.as_str()).collect();
        f.debug_struct("Assembled")
            .field("executors", &self.executors)
            .field("workflows", &workflows)
            .field("filters", &self.filters)
            .field("observers", &observers)
            .field("settings", &self.settings)
            .finish()
    }
}

fn failed(checker: &str, message: String) -> Denial {
    Denial {
        checker: checker.to_owned(),
        component: String::new(),
        file: String::new(),
        path: ConfigPath::from(""),
        code: Denial::CHECKER_FAILED.to_owned(),
        message: format!("the checker {message}"),
        public: false,
    }
}

fn denial(plan: &Plan, checker: &str, component: &ConfigPath, finding: Finding) -> Denial {
    let spec = plan.component(component);
    let Finding { code, message, path, public } = finding;
    Denial {
        checker: checker.to_owned(),
        component: spec.map_or(component.as_str(), ComponentSpec::label).to_owned(),
        file: spec.map(|spec| spec.file.clone()).unwrap_or_default(),
        path,
        code,
        message,
        public,
    }
}

/// Neither the component nor one that it is an argument of is disabled.
fn is_built(plan: &Plan, spec: &ComponentSpec) -> bool {
    let disabled = |path: &ConfigPath| plan.component(path).is_some_and(|spec| spec.disabled);
    !spec.disabled && !spec.ancestors.iter().any(disabled)
}

/// A service, or an argument of one.
fn is_of_service(plan: &Plan, spec: &ComponentSpec) -> bool {
    let outermost = spec.ancestors.first().and_then(|path| plan.component(path));
    outermost.unwrap_or(spec).kind == Kind::Service
}

fn build_one(
    spec: &ComponentSpec,
    registry: &Registry,
    cx: &BuildCx<'_>,
    built: &mut [Option<Built>],
) -> Result<Built, BuildError> {
    let children = spec.children.iter().map(|index| built.get_mut(*index).and_then(Option::take)).collect();
    let made = registry.build(spec.name, spec.build_args.clone(), &cx.with_children(spec.label(), children));
    let made = made.and_then(|built| match built.kind() {
        kind if kind == spec.kind => Ok(built),
        kind => Err(BuildError::WrongKind { name: spec.name, promised: spec.kind, made: kind }),
    });
    made.map_err(|source| {
        let (path, file, line) = (spec.path.clone(), spec.file.clone(), spec.line);
        BuildError::Component { path, file, line, source: Box::new(source) }
    })
}

fn assemble(plan: &Plan, mut built: Vec<Option<Built>>) -> Assembled {
    let mut take = |index: usize| built.get_mut(index).and_then(Option::take);
    let mut assembled = Assembled { settings: plan.settings.clone(), ..Assembled::default() };
    for entry in &plan.executors {
        if let Some(Built::Executor(executor)) = take(entry.component) {
            assembled.executors.insert(entry.tasks.iter().cloned(), executor);
        }
    }
    for entry in &plan.workflows {
        if let Some(Built::Workflow(workflow)) = take(entry.component) {
            assembled.workflows.push((entry.id.clone(), workflow));
        }
    }
    for entry in &plan.filters {
        let mut filters: Vec<Box<dyn TaskFilter>> = Vec::new();
        for index in &entry.components {
            if let Some(Built::Filter(filter)) = take(*index) {
                filters.push(filter);
            }
        }
        assembled.filters.append(entry.chain, &entry.directions, &entry.tasks, filters);
    }
    for index in &plan.others {
        if let Some(Built::Observer(observer)) = take(*index) {
            assembled.observers.push((plan.components[*index].label().to_owned(), observer));
        }
    }
    assembled
}
