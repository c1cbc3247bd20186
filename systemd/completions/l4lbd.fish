# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_l4lbd_global_optspecs
    string join \n h/help
end

function __fish_l4lbd_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_l4lbd_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_l4lbd_using_subcommand
    set -l cmd (__fish_l4lbd_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c l4lbd -n "__fish_l4lbd_needs_command" -s h -l help -d 'Print help'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "demo" -d 'Show l4lbd at work on this machine for a minute, without Mesos; needs root'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "run" -d 'Run the daemon'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "status" -d 'Show the state of the running daemon; exit code 2 if it is degraded'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "top" -d 'Show which VIPs have most connections, bytes or failures now, with their backends'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "metrics" -d 'Print the metrics of the running daemon as Prometheus reads them'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "names" -d 'List the names that DNS serves, with their addresses'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "events" -d 'Show what changed on this node, when, and why'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "vip" -d 'Show everything about one VIP, and what a connection to it would do; exit code 2 if it would be refused'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "reload" -d 'Have the daemon read its configuration file again'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "accept-loss" -d 'Give up tasks that are held after a sudden loss or a master\'s fail-over'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "explain" -d 'Show which VIPs this node would make of a state document; needs no root and no kernel'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "plan" -d 'Show what the next pass would change in the kernel, and change nothing'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "check" -d 'Check a configuration file and the files that it names; prints every error, exit code 64'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "import-dcos" -d 'Print the configuration of dcos-net as one of l4lbd'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "doctor" -d 'Find out what is wrong with this node, and show the command that mends it; exit code 1 if something is'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "purge" -d 'Remove everything of l4lbd from the kernel, and nothing else'
complete -c l4lbd -n "__fish_l4lbd_needs_command" -f -a "help" -d 'Show the help of a command, or the manual page of a topic'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand demo" -l duration -d 'Length of the demonstration, such as 45s or 5m; at least 15s' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand demo" -l dataplane -d 'Data plane to show' -r -f -a "auto\t'IPVS if this kernel has it, otherwise eBPF'
ipvs\t''
ebpf\t''"
complete -c l4lbd -n "__fish_l4lbd_using_subcommand demo" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand run" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand run" -l once -d 'Make one successful pass, leave the kernel programmed, and end'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -s o -l output -d 'Form of the output' -r -f -a "screen\t'Reasons with their remedies, and the VIPs that are not well, in the width of the terminal'
wide\t'Everything, in lines as long as they are'
json\t'JSON for programs'"
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l agent -d 'List VIPs alone that have a backend on this agent: its id, name or address' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l framework -d 'List VIPs alone of this framework: its name or id' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l json -d 'Print JSON for programs, as -o json'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l compare -d 'Compare the kernel with what it should hold first'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -l unhealthy -d 'List VIPs alone of which a backend should take connections and does not'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -s w -l watch -d 'Show it anew every 2 s, until q or Ctrl-C'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -s s -l sort -d 'Sort by this figure: open connections, new connections a second (rate), bytes a second, failed connects a second, or the name' -r -f -a "name\t''
connections\t''
rate\t''
bytes\t''
failures\t''"
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -s i -l interval -d 'Seconds between two questions, 1 to 60' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -l rows -d 'VIPs to print or to send, up to 200' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -s r -l reverse -d 'Show the smallest first'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -l once -d 'Print the list once, after one interval, as in a pipe'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -l json -d 'Print JSON for programs, once'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand top" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand metrics" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand metrics" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand metrics" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand names" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand names" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand names" -l json -d 'Print JSON for programs'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand names" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -l since -d 'Show events from this time on: a length of time before now, such as 1h, or a time such as 2026-11-27T03:00:00Z' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -l vip -d 'Show the events of these VIPs alone: a name with or without the zone, in which * stands for any text, an address, or the id of a task that has them; each with or without ":PORT"' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -l task -d 'Show the events of the task with this id alone' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -s f -l follow -d 'Go on with new events as they come, across restarts of the daemon too'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -l json -d 'Print JSON for programs, one event a line'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand vip" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand vip" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand vip" -l json -d 'Print JSON for programs'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand vip" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand reload" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand reload" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand reload" -l json -d 'Print JSON for programs'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand reload" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand accept-loss" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand accept-loss" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand accept-loss" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l state -d 'State document: /state of a master or an agent, GET_STATE or SUBSCRIBE events of the v1 API; - for standard input' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l format -d 'Format of the document: state, v1-state, v1-events, or auto to find it out' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l node-address -d 'Show the backends as the node with this address sees them; also the agent\'s address where the document names no agent' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l vip-range4 -d 'Addresses of named IPv4 VIPs, instead of vips.range4' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l vip-range6 -d 'Addresses of named IPv6 VIPs, instead of vips.range6' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -l json -d 'Print JSON for programs'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand explain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand plan" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand check" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand check" -s h -l help -d 'Print help'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand import-dcos" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -l socket -d 'Socket of the daemon [default: daemon.socket of the configuration]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -l connect -d 'Walk the path of one TCP connection instead: name, address, service, backends, and who answers' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -l netns -d 'Walk it from this network namespace, such as /run/netns/NAME' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -l container -d 'Walk it from the container of this process, with its resolv.conf' -r
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -s v -l verbose -d 'Show checks that are fine or skipped, too'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -l json -d 'Print JSON for programs'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand doctor" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand purge" -l config -d 'Configuration file [default: /etc/l4lbd/l4lbd.toml, if there is one]' -r -F
complete -c l4lbd -n "__fish_l4lbd_using_subcommand purge" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c l4lbd -n "__fish_l4lbd_using_subcommand help" -s h -l help -d 'Print help'
