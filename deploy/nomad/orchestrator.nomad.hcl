# One orchestrator on each client of the class "emberbox". `raw_exec`, as it makes namespaces and
# starts VMs that outlive it: Nomad must not end what it has started with it.
job "emberbox-orchestrator" {
  type = "system"

  constraint {
    attribute = "${node.class}"
    value     = "emberbox"
  }

  group "host" {
    task "orchestrator" {
      driver       = "raw_exec"
      kill_signal  = "SIGTERM"
      kill_timeout = "30s"

      config {
        # In a session of its own, so that VMs are not in the task's process group.
        command = "/usr/bin/setsid"
        args    = ["--wait", "/opt/emberbox/bin/emberbox", "orchestrator"]
      }

      env {
        EMBERBOX_NODE_ID              = "${node.unique.name}"
        EMBERBOX_ADVERTISE_ADDRESS    = "${attr.unique.network.ip-address}"
        EMBERBOX_ORCHESTRATOR_HOST    = "0.0.0.0"
        EMBERBOX_DATA_HOST            = "0.0.0.0"
        EMBERBOX_INTERNAL_SECRET_FILE = "/etc/emberbox/internal_secret"
        EMBERBOX_API_INTERNAL_ADDRESS = "10.0.0.11:3001,10.0.0.12:3001,10.0.0.13:3001"
        EMBERBOX_NODE_LABELS          = "datacenter=${node.datacenter}"
      }

      resources {
        cpu    = 1000
        memory = 1024
      }
    }
  }
}
