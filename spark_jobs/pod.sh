#!/bin/sh
# What Spark's Kubernetes scheduler asks of an image: `driver ARGUMENTS...` submits in its own pod, `executor` serves the driver.
# The names of the variables are Spark's (org.apache.spark.deploy.k8s.Constants); anything else is run as it is.
set -eu
home=$(python3 -c 'import importlib.util; print(importlib.util.find_spec("pyspark").submodule_search_locations[0])')
export SPARK_HOME="$home"

case "${1:-}" in
  driver)
    shift
    exec "$home/bin/spark-submit" --deploy-mode client --conf "spark.driver.bindAddress=$SPARK_DRIVER_BIND_ADDRESS" "$@"
    ;;
  executor)
    set --
    i=0
    while option=$(printenv "SPARK_JAVA_OPT_$i"); do
      set -- "$@" "$option"
      i=$((i + 1))
    done
    exec java "$@" -Xms"$SPARK_EXECUTOR_MEMORY" -Xmx"$SPARK_EXECUTOR_MEMORY" \
      -cp "${SPARK_CONF_DIR:-/opt/spark/conf}:${SPARK_CLASSPATH:-}:$home/jars/*" \
      org.apache.spark.scheduler.cluster.k8s.KubernetesExecutorBackend \
      --driver-url "$SPARK_DRIVER_URL" --executor-id "$SPARK_EXECUTOR_ID" --cores "$SPARK_EXECUTOR_CORES" \
      --app-id "$SPARK_APPLICATION_ID" --hostname "$SPARK_EXECUTOR_POD_IP" \
      --resourceProfileId "$SPARK_RESOURCE_PROFILE_ID" --podName "$SPARK_EXECUTOR_POD_NAME"
    ;;
  *) exec "$@" ;;
esac
