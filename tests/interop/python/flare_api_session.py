"""One whole session of an administrator through the FLARE API of nvflare, as JSON lines.

Usage: flare_api_session.py KIT USER JOB [--abort JOB] [--destination DIR] [--shutdown] [--timeout SECONDS]

Logs in with the startup kit in the folder KIT as USER, looks at server and sites, submits the job folder JOB and
waits for its end, fetches and lists its result, submits it once more as a clone and aborts that, deletes both,
and logs out. With --abort, that job is submitted first and aborted as soon as it runs, which is when statistics
and errors are asked for. Every step is one line on standard output: {"step", "ok", ...}; the exit code is the
number of steps that failed.
"""

import argparse
import json
import os
import tempfile
import time
import traceback

from nvflare.fuel.flare_api.api_spec import AuthorizationError
from nvflare.fuel.flare_api.flare_api import new_secure_session

FAILED = 0


def say(step, ok, **more):
    global FAILED
    FAILED += 0 if ok else 1
    print(json.dumps({"step": step, "ok": ok, **more}, default=str), file=OUT, flush=True)


def step(name, action, show=lambda result: result):
    """Does one step; its result, or None if it failed."""
    began = time.monotonic()
    try:
        result = action()
    except Exception as error:
        traceback.print_exc()
        say(name, False, error=f"{type(error).__name__}: {error}")
        return None
    say(name, True, seconds=round(time.monotonic() - began, 3), result=show(result))
    return result


def refused(name, action, kind):
    """Does one step that must be refused with an exception of this name."""
    try:
        result = action()
    except Exception as error:
        say(name, type(error).__name__ == kind, error=f"{type(error).__name__}: {error}")
        return
    say(name, False, error="it was not refused", result=result)


def step_if_allowed(name, action, show=lambda result: result):
    """Does one step for which only some roles have the right."""
    try:
        result = action()
    except AuthorizationError as error:
        say(name, True, refused=str(error))
    except Exception as error:
        traceback.print_exc()
        say(name, False, error=f"{type(error).__name__}: {error}")
    else:
        say(name, True, result=show(result))


def files_below(folder):
    found = []
    for here, _, names in os.walk(folder):
        found += [os.path.relpath(os.path.join(here, name), folder) for name in names]
    return sorted(found)


def wait_until(session, job_id, status, timeout):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        now = session.get_job_status(job_id)
        if now == status:
            return now
        if now.startswith("FINISHED"):
            raise RuntimeError(f"job is over before it was {status}: {now}")
        time.sleep(0.2)
    raise TimeoutError(f"job was not {status} in time")


def system_info(session):
    info = session.get_system_info()
    return {
        "server": info.server_info.status,
        "started": info.server_info.start_time,
        "sites": [{"name": site.name, "seen": site.last_connect_time} for site in info.client_info],
        "jobs": [{"job_id": job.job_id, "app": job.app_name} for job in info.job_info],
    }


def run(arguments):
    session = step(
        "log in", lambda: new_secure_session(arguments.user, arguments.kit, timeout=arguments.timeout), lambda _: None
    )
    if session is None:
        return
    step("system info", lambda: system_info(session))
    step("connected clients", lambda: [site.name for site in session.get_connected_client_list()])
    step("client job status", lambda: session.get_client_job_status())
    step("check status of all", lambda: session.check_status("all"))
    step_if_allowed("version", lambda: session.report_version("all"))
    step("list jobs before", lambda: session.list_jobs())
    refused("meta of no job", lambda: session.get_job_meta("3e2d9f0e-1111-4222-8333-444455556666"), "JobNotFound")
    no_job = tempfile.mkdtemp()
    refused("a folder that is no job", lambda: session.submit_job(no_job), "InvalidJobDefinition")

    if arguments.abort:
        doomed = step("submit a job to abort", lambda: session.submit_job(arguments.abort))
        if doomed:
            step("it runs", lambda: wait_until(session, doomed, "RUNNING", arguments.timeout))
            step("system info while it runs", lambda: system_info(session))
            step("stats", lambda: session.show_stats(doomed, "all"))
            step("errors", lambda: session.show_errors(doomed, "all"))
            refused("result of a running job", lambda: session.download_job_result(doomed), "JobNotDone")
            refused("delete a running job", lambda: session.delete_job(doomed), "JobNotDone")
            step("abort", lambda: session.abort_job(doomed))
            step("monitor its end", lambda: session.wait_for_job(doomed, arguments.timeout, 0.5).get("status"))
            step("delete it", lambda: session.delete_job(doomed))

    job_id = step("submit", lambda: session.submit_job(arguments.job))
    if job_id:
        step("meta", lambda: session.get_job_meta(job_id))
        step("monitor", lambda: session.monitor_job(job_id, timeout=arguments.timeout, poll_interval=0.5))
        step("meta at the end", lambda: session.get_job_meta(job_id))
        step("list jobs", lambda: session.list_jobs())
        step("list jobs in detail", lambda: [job["job_id"] for job in session.list_jobs(detailed=True, reverse=True)])
        step("list jobs by id", lambda: [job["job_id"] for job in session.list_jobs(id_prefix=job_id[:8])])
        step(
            "download",
            lambda: session.download_job_result(job_id, arguments.destination),
            lambda folder: {"folder": folder, "files": files_below(folder)},
        )
        step_if_allowed("components", lambda: session.list_job_components(job_id))
        clone = step("clone", lambda: session.clone_job(job_id))
        if clone:
            step("abort the clone", lambda: session.abort_job(clone))
            step("monitor the clone", lambda: session.wait_for_job(clone, arguments.timeout, 0.5).get("status"))
            step("delete the clone", lambda: session.delete_job(clone))
        step("delete", lambda: session.delete_job(job_id))
        refused("meta of the deleted job", lambda: session.get_job_meta(job_id), "JobNotFound")
    if arguments.shutdown:
        step("shut down", lambda: session.shutdown("all", wait=False))
    step("log out", session.close)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kit")
    parser.add_argument("user")
    parser.add_argument("job")
    parser.add_argument("--abort")
    parser.add_argument("--destination")
    parser.add_argument("--shutdown", action="store_true", help="stop sites and server at the end")
    parser.add_argument("--timeout", type=float, default=60.0)
    # The library prints to standard output, too: only our lines are to come there.
    OUT = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    run(parser.parse_args())
    OUT.flush()
    # Its threads may outlive the session.
    os._exit(min(FAILED, 100))
