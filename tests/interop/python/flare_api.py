"""The FLARE API of nvflare, driven by JSON lines."""

import time

from nvflare.fuel.flare_api.flare_api import new_secure_session

import lines

session = None


def connect(user, kit, timeout=30):
    """Opens the session that the other commands use; `kit` is the administrator's."""
    global session
    session = new_secure_session(user, kit, timeout=timeout)


def sites():
    """Names of the sites that the server knows."""
    return sorted(client.name for client in session.get_system_info().client_info)


def wait_sites(names, timeout=60):
    """Waits until the server knows exactly these sites."""
    deadline = time.monotonic() + timeout
    while (known := sites()) != sorted(names):
        if time.monotonic() > deadline:
            raise TimeoutError(f"the server knows {known}")
        time.sleep(0.1)


def wait_job(job, timeout=120):
    """Waits for the end of a job; its meta data."""
    session.monitor_job(job, timeout=timeout, poll_interval=0.2)
    return session.get_job_meta(job)


def shutdown(target):
    """Stops `client`s, `server` or `all`."""
    session.shutdown(target)


lines.serve(
    {
        "connect": connect,
        "sites": sites,
        "wait_sites": wait_sites,
        "submit": lambda folder: session.submit_job(folder),
        "wait_job": wait_job,
        "meta": lambda job: session.get_job_meta(job),
        "jobs": lambda: session.list_jobs(),
        "status": lambda target: session.check_status(target),
        "abort": lambda job: session.abort_job(job),
        "clone": lambda job: session.clone_job(job),
        "delete": lambda job: session.delete_job(job),
        "stats": lambda job: session.show_stats(job, "all"),
        "errors": lambda job: session.show_errors(job, "all"),
        "version": lambda: session.report_version("all"),
        "resources": lambda: session.report_resources("client"),
        "download": lambda job: session.download_job_result(job),
        "shutdown": shutdown,
        "close": lambda: session.close(),
    }
)
