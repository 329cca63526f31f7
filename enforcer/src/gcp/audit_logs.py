# Adds data access logs of services to a project's policy, and takes none away: FILE SERVICE...
import json, sys
path, services = sys.argv[1], sys.argv[2:]
with open(path) as file:
    policy = json.load(file)
configs = policy.setdefault("auditConfigs", [])
for service in services:
    known = [config for config in configs if config.get("service") == service]
    if not known:
        known = [{"service": service}]
        configs += known
    logs = known[0].setdefault("auditLogConfigs", [])
    there = [log.get("logType") for log in logs]
    logs += [{"logType": kind} for kind in ("ADMIN_READ", "DATA_READ", "DATA_WRITE") if kind not in there]
with open(path, "w") as file:
    json.dump(policy, file)
