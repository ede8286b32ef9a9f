"""JupyterHub's configuration for a classroom on one machine; workshop/classroom.py starts it.

Learners have no accounts on the machine: their servers run under the account that started the
classroom, each in a folder of its own. That keeps work apart; it does not keep people apart.
"""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
from pathlib import Path

from jupyterhub.spawner import SimpleLocalProcessSpawner

sys.path.insert(0, str(Path(__file__).resolve().parent))
import copies

SETTINGS = json.loads(os.environ["COURSE_CLASSROOM"])
FOLDER = Path(SETTINGS["folder"])
# To the end: JupyterHub itself asks only for the beginning to fit.
NAMES = r"[a-z][a-z0-9-]{0,29}\Z"
# The matrices of the course are small, and thirty kernels share the cores.
ONE_THREAD = dict.fromkeys(
    ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"), "1"
)


# Below those that systems hand out by themselves, which may be taken between choice and use.
PORTS = range(20000, 30000)


UNTRIED = itertools.cycle(PORTS)


def free_port():
    """A port that nobody listens on; the next at each call, since a server takes it later."""
    for port in itertools.islice(UNTRIED, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"All ports from {PORTS[0]} to {PORTS[-1]} are taken.")


class LearnerSpawner(SimpleLocalProcessSpawner):
    """A learner's server, in a folder that has the course and whatever the learner made of it."""

    async def start(self):
        self.port = self.port or free_port()
        await asyncio.to_thread(copies.give_copy, FOLDER / "template", Path(self.home_dir))
        return await super().start()

    def user_env(self, env):
        env = super().user_env(env)
        # `import helpers` finds the learner's own copy, with its data and its noted progress.
        env.update(PYTHONPATH=self.home_dir, IPYTHONDIR=str(Path(self.home_dir, ".ipython")))
        env.update(JUPYTER_RUNTIME_DIR=str(Path(SETTINGS["sockets"], self.user.name)))
        return env


c = get_config()  # noqa: F821

# Who may come in: anyone who knows the password, under a name that is safe as a folder's.
c.JupyterHub.authenticator_class = "shared-password"
c.SharedPasswordAuthenticator.user_password = SETTINGS["password"]
c.Authenticator.allow_all = True
c.Authenticator.username_pattern = NAMES
c.JupyterHub.template_vars = {
    "announcement_login": "Choose a name for today, of letters a to z, digits and hyphens "
    "(such as learner-07), and keep to it: your work is filed under it. The password is the one in "
    "the room."
}

# What must outlive a restart.
c.JupyterHub.db_url = f"sqlite:///{FOLDER / 'hub.sqlite'}"
c.JupyterHub.cookie_secret_file = str(FOLDER / "cookie-secret")

# The proxy has a life of its own, so that a restart of the hub cuts nobody off.
c.JupyterHub.bind_url = f"http://:{SETTINGS['port']}"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{SETTINGS['hub_port']}"
c.ConfigurableHTTPProxy.should_start = False
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{SETTINGS['api_port']}"
c.ConfigurableHTTPProxy.auth_token = os.environ["CONFIGPROXY_AUTH_TOKEN"]
# A proxy that was started again learns its routes within this many seconds.
c.JupyterHub.last_activity_interval = 20

# Ended in order (Ctrl-C), the hub ends the servers; killed, it leaves them at work and finds them.
c.JupyterHub.cleanup_servers = True

c.JupyterHub.spawner_class = LearnerSpawner
c.LearnerSpawner.home_dir_template = str(FOLDER / "learners" / "{username}")
c.Spawner.notebook_dir = str(FOLDER / "learners" / "{username}")
c.Spawner.default_url = "/lab/tree/notebooks/00-start-here.ipynb"
c.Spawner.cmd = [sys.executable, "-m", "jupyterhub.singleuser"]
# Kernels talk to their server through files. Of five ports for each of thirty kernels, now and then
# one is taken by another program before the kernel has it, and the kernel does not start.
c.Spawner.args = ["--KernelManager.transport=ipc"]
if os.geteuid() == 0:
    c.Spawner.args += ["--allow-root"]
c.Spawner.env_keep = ["PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "MPLCONFIGDIR"]
c.Spawner.env_keep += ["PYTHONNOUSERSITE", "JUPYTER_PREFER_ENV_PATH", "COURSE_CLASSROOM_FOLDER"]
c.Spawner.environment = ONE_THREAD
# On a slow machine the thirtieth server of a class that arrives all at once takes its time.
c.Spawner.start_timeout = c.Spawner.http_timeout = 300
