# The models as an image, for pods, which cannot mount a folder of a checkout:
#
#   docker build --tag REGISTRY/epvs-node-models:0.2.0 --file deploy/kubernetes/models.Dockerfile triton_models
#
# Any folder laid out like triton_models/ will do. Built on the node's image, whose layers the machines
# of a cluster have already: only the models are added.
ARG NODE_IMAGE=epvs-node:0.2.0
FROM ${NODE_IMAGE}
USER root
COPY . /opt/models
RUN chmod -R a+rX /opt/models
USER 10001
