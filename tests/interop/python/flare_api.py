"""The FLARE API of nvflare, driven by JSON lines."""

import inspect
import os
import tempfile
import time

from nvflare.fuel.flare_api.api_spec import JobNotFound, NoConnection
from nvflare.fuel.flare_api.flare_api import new_secure_session

import lines

session = None


def connect(user, kit, timeout=60):
    """Opens the session that the other commands use; `kit` is the administrator's."""
    global session
    session = new_secure_session(user, str(kit), timeout=timeout)


def wait_until(condition, describe, timeout):
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(describe())
        time.sleep(0.1)


def sites():
    """Names of the sites that the server knows."""
    return sorted(client.name for client in session.get_system_info().client_info)


def wait_sites(names, timeout=60):
    """Waits until the server knows exactly these sites."""
    wait_until(lambda: sites() == sorted(names), lambda: f"the server knows {sites()}", timeout)


def answers():
    """Names of the sites that answer the server."""
    try:
        told = session.report_version("client")
    except NoConnection:  # the server waited for them longer than the session for the server
        return []
    return sorted(name for name in told if "version" in told[name])


def wait_answers(names, timeout=60):
    """Waits until all these sites answer the server."""
    wait_until(lambda: answers() == sorted(names), lambda: f"only {answers()} answer", timeout)


def wait_running(job, timeout=60):
    """Waits until the job runs at the server, as far as the server tells."""

    def runs():
        status = session.get_job_status(job)
        if status.startswith("FINISHED"):
            raise RuntimeError(f"the job is over: {status}")
        return status == "RUNNING"

    wait_until(runs, lambda: f"the job is {session.get_job_status(job)}", timeout)


def stats(job, timeout=30):
    """Statistics of a running job; nvflare's server finds no such job while the job's process starts."""
    told = []

    def finds():
        try:
            told.append(session.show_stats(job, "all"))
        except JobNotFound:
            pass
        return told

    wait_until(finds, lambda: "no such job, while it runs", timeout)
    return told[0]


def wait_job(job, timeout=120):
    """Watches a job until its end; its meta data."""
    session.monitor_job(job, timeout=timeout, poll_interval=0.2)
    return session.get_job_meta(job)


def system_info():
    info = session.get_system_info()
    return {
        "server": info.server_info.status,
        "sites": sorted(site.name for site in info.client_info),
        "jobs": [job.job_id for job in info.job_info],
    }


def download(job, to):
    os.makedirs(to, exist_ok=True)
    takes_folder = len(inspect.signature(session.download_job_result).parameters) > 1  # not before nvflare 2.8
    return session.download_job_result(job, to) if takes_folder else session.download_job_result(job)


def close():
    """Logs out; what a command then says."""
    session.close()
    try:
        session.list_jobs()
    except Exception as error:
        return type(error).__name__


lines.serve(
    {
        "connect": connect,
        "sites": sites,
        "wait_sites": wait_sites,
        "wait_answers": wait_answers,
        "system_info": system_info,
        "submit": lambda folder: session.submit_job(folder),
        "submit_once": lambda folder, token: session.submit_job(folder, submit_token=token),
        "logs": lambda job: session.get_job_logs(job, "all"),
        "submit_nothing": lambda: session.submit_job(tempfile.mkdtemp()),
        "wait_running": wait_running,
        "wait_job": wait_job,
        "meta": lambda job: session.get_job_meta(job),
        "jobs": lambda **options: session.list_jobs(**options),
        "status": lambda target: session.check_status(target),
        "abort": lambda job: session.abort_job(job),
        "clone": lambda job: session.clone_job(job),
        "delete": lambda job: session.delete_job(job),
        "stats": stats,
        "errors": lambda job: session.show_errors(job, "all"),
        "version": lambda: session.report_version("all"),
        "resources": lambda: session.report_resources("client"),
        "download": download,
        "shutdown": lambda target: session.shutdown(target),
        "close": close,
    }
)
