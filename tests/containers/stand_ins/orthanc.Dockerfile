ARG BASE
FROM ${BASE}
# Root without capabilities cannot enter a folder that Debian keeps for the user `orthanc`.
RUN install --directory --owner=root --group=root --mode=0755 /var/lib/orthanc /var/lib/orthanc/db \
 && rm -f /etc/orthanc/*.json \
 && echo '{ "StorageDirectory": "/var/lib/orthanc/db" }' >/etc/orthanc/storage.json
CMD ["Orthanc", "/etc/orthanc"]
