"""Tables what `nvflare provision` makes of project.yml: `python make.py PROD_DIR > kits.json`.

Keys, scripts and logging configurations are left out, and of class_allow_list only its length stays.
"""
import json
import pathlib
import sys

from cryptography import x509

prod = pathlib.Path(sys.argv[1])
table = {"folders": {}, "documents": {}, "certificates": {}}


def certificate(path):
    cert = x509.load_pem_x509_certificate(path.read_bytes())
    san = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return {
        "subject": [[part.oid._name, part.value] for part in cert.subject],
        "issuer": [[part.oid._name, part.value] for part in cert.issuer],
        "names": [str(name.value) for name in san],
        "extensions": {e.oid._name: e.critical for e in cert.extensions},
        "days": (cert.not_valid_after_utc - cert.not_valid_before_utc).days,
        "signature": cert.signature_algorithm_oid._name,
    }


for kit in sorted(p for p in prod.iterdir() if p.is_dir()):
    table["folders"][kit.name] = sorted(
        str(p.relative_to(kit)) + ("/" if p.is_dir() else "") for p in kit.rglob("*")
    )
    for path in sorted(kit.rglob("*")):
        name = str(path.relative_to(prod))
        if path.suffix in (".crt", ".pem") and path.name != "customRootCA.pem":
            table["certificates"][name] = certificate(path)
        is_json = path.name.endswith((".json", ".json.default", ".json.sample"))
        if is_json and path.name != "log_config.json.default":
            document = json.loads(path.read_text())
            if "class_allow_list" in document:
                document["class_allow_list"] = len(document["class_allow_list"])
            table["documents"][name] = document

json.dump(table, sys.stdout, indent=1)
print()
