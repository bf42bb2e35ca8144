#!/bin/sh
# Makes the certificates of this folder anew: `sh make.sh`, with the openssl command line tool 3.x.
# The profile is that of a stock startup kit (RSA 2048, root with CN = project, leaves without key
# usages), except that these are valid for a hundred years.
set -eu
cd "$(dirname "$0")"

root() { # file stem, project
    openssl req -x509 -newkey rsa:2048 -nodes -days 36500 -subj "/CN=$2" -keyout "$1.key" -out "$1.pem" \
        -addext 'basicConstraints=critical,CA:TRUE' \
        -addext 'keyUsage=critical,digitalSignature,keyCertSign,cRLSign' -addext "subjectAltName=DNS:$2"
}

leaf() { # file stem, subject, subject alternative names, root stem
    openssl req -newkey rsa:2048 -nodes -subj "$2" -keyout pkcs8.tmp -out "$1.csr"
    openssl rsa -traditional -in pkcs8.tmp -out "$1.key"
    printf 'subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\nsubjectAltName=%s\n' "$3" > extensions.tmp
    openssl x509 -req -in "$1.csr" -CA "$4.pem" -CAkey "$4.key" -days 36500 -extfile extensions.tmp -out "$1.crt"
}

root rootCA example_project
root otherCA other_project
root olderCA older_project
leaf server '/CN=server1/O=nvidia' 'DNS:localhost,DNS:server1,IP:127.0.0.1' rootCA
leaf client '/CN=site-1/O=hospital' 'DNS:site-1' rootCA
leaf admin '/CN=admin@nvidia.com/O=nvidia/unstructuredName=project_admin' 'DNS:admin@nvidia.com' rootCA
leaf stranger '/CN=site-1/O=hospital' 'DNS:localhost' otherCA
# as nvflare 2.7 writes addresses
leaf older '/CN=server1/O=nvidia' 'DNS:localhost,DNS:server1,DNS:127.0.0.1' olderCA
leaf two_names '/CN=site-1/CN=site-2/O=hospital' 'DNS:site-1' rootCA
openssl pkcs8 -topk8 -nocrypt -in client.key -out client_pkcs8.key
openssl pkcs8 -topk8 -passout pass:secret -in client.key -out encrypted_pkcs8.key
openssl rsa -traditional -aes128 -passout pass:secret -in client.key -out encrypted_pkcs1.key
rm -f ./*.csr ./*.tmp rootCA.key otherCA.key olderCA.key two_names.key
