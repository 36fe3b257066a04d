"""A Docker Engine with a swarm of one node inside the virtual machine (scripts/virtual-machine), for the scripts that look at
it there.

They get as arguments the directory of the results, the only one of the outside that can be written, and that of what was
built outside. In the results' there are then:
  output      all that is printed, which the outside shows as it comes
  status      made at the end; empty if nothing was otherwise than it has to be
"""

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time

RESULTS, BUILT = sys.argv[1:3]
RUN = "/run/engine"
ENGINE = f"{RUN}/docker.sock"
CONTAINERD = f"{RUN}/containerd.sock"
LOAD = f"{RUN}/bin/ringlb-load"
HOST, ROUTER, FAR = "192.0.2.1", "198.51.100.1", "198.51.100.2"
# Emulated, on a machine that may have other work.
PATIENCE = 480


def finish(main, failed):
    """Does the work, and tells the outside what came of it. `failed` gets what was otherwise than it has to be."""
    output = os.open(f"{RESULTS}/output", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    try:
        main()
    except Exception as error:
        failed.append(str(error))
        with contextlib.suppress(OSError):
            shutil.copy(f"{RUN}/dockerd.log", f"{RESULTS}/dockerd.log")
        raise
    finally:
        with open(f"{RESULTS}/status.part", "w") as out:
            out.write("".join(f"{line}\n" for line in failed))
        # Made whole at once: it is the sign that nothing was cut short.
        os.rename(f"{RESULTS}/status.part", f"{RESULTS}/status")


def prepare():
    os.environ["PATH"] += ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    os.environ["DOCKER_HOST"] = f"unix://{ENGINE}"
    os.makedirs(RUN)
    run("mount", "-t", "tmpfs", "tmpfs", RUN)
    # A program run from memory starts faster than one read over 9p by each process.
    shutil.copytree(BUILT, f"{RUN}/bin")
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "uplink0", "type", "dummy")
    run("ip", "address", "add", f"{HOST}/24", "dev", "uplink0")
    run("ip", "link", "set", "uplink0", "up")
    run("ip", "route", "add", "default", "dev", "uplink0")
    # Another machine, as far as the Engine can tell.
    run("ip", "netns", "add", "far")
    run("ip", "link", "add", "far0", "type", "veth", "peer", "name", "eth0", "netns", "far")
    run("ip", "address", "add", f"{ROUTER}/24", "dev", "far0")
    run("ip", "link", "set", "far0", "up")
    run("ip", "-n", "far", "address", "add", f"{FAR}/24", "dev", "eth0")
    run("ip", "-n", "far", "link", "set", "eth0", "up")
    modules = """vxlan overlay br_netfilter iptable_nat iptable_filter xt_MASQUERADE xt_addrtype xt_conntrack xt_mark nf_tables
        nft_reject_ipv4"""
    for module in modules.split():
        run("modprobe", module)
    say(f"booted {os.uname().release} in {open('/proc/uptime').read().split()[0]} s")


def start_containerd():
    # By itself, because the Engine waits 15 s for it and no longer.
    places = ["--address", CONTAINERD, "--root", f"{RUN}/containerd", "--state", f"{RUN}/containerd-state"]
    start("containerd", ["containerd", *places])
    until("containerd answers", lambda: run("ctr", "--address", CONTAINERD, "version", check=False).returncode == 0)


def start_engine(environment):
    options = ["--data-root", f"{RUN}/root", "--exec-root", f"{RUN}/exec", "--pidfile", f"{RUN}/docker.pid"]
    engine = start("dockerd", ["dockerd", "-H", f"unix://{ENGINE}", "--containerd", CONTAINERD, *options], environment)
    until("the Engine answers", lambda: docker("version", check=False).returncode == 0)
    say(f"the Engine runs, {open('/proc/uptime').read().split()[0]} s after boot")
    return engine


def set_up_engine():
    """What outlives a restart of it."""
    image = f"{RUN}/image"
    libraries = re.findall(r"/\S+", run("ldd", LOAD).stdout)
    for file, place in [(LOAD, "/bin/ringlb-load"), *((library, library) for library in libraries)]:
        os.makedirs(os.path.dirname(image + place), exist_ok=True)
        shutil.copy(file, image + place)
    run("tar", "-C", image, "-cf", f"{RUN}/image.tar", ".")
    docker("import", "-c", 'ENTRYPOINT ["/bin/ringlb-load"]', f"{RUN}/image.tar", "test:1")
    docker("swarm", "init", "--advertise-addr", HOST)


def start(name, command, environment=None):
    log = open(f"{RUN}/{name}.log", "a")
    return subprocess.Popen(command, stdout=log, stderr=log, env=environment)


def service(name, replicas, *options):
    base = ["--name", name, "--network", "front", "--replicas", str(replicas), "--no-resolve-image", "--detach"]
    docker("service", "create", *base, *options, "test:1", "serve", "--listen", "0.0.0.0:7000", "--listen", "0.0.0.0:7001")


def tasks(name):
    """The containers of the service's running tasks."""
    label = f"label=com.docker.swarm.service.name={name}"
    return docker("ps", "-q", "--filter", label, "--filter", "status=running").stdout.split()


def docker(*arguments, **options):
    return run("docker", *arguments, **options)


def run(*command, check=True, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done


def until(what, condition, patience=PATIENCE):
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience} s in vain: {what}")
        time.sleep(0.2)


def say(text):
    print(text, flush=True)
