// Command nomad-client drives a Nomad agent with Nomad's own client library, and fails where an answer is not what it expects.
//
// usage: nomad-client <address>
package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

const patience = 20 * time.Second

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: nomad-client <address>")
		os.Exit(2)
	}
	client, err := api.NewClient(&api.Config{Address: os.Args[1]})
	if err == nil {
		err = drive(client)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "nomad-client:", err)
		os.Exit(1)
	}
}

func task(script string) *api.Task {
	return &api.Task{
		Name:      "main",
		Driver:    "raw_exec",
		Config:    map[string]any{"command": "/bin/sh", "args": []string{"-c", script}},
		Resources: &api.Resources{CPU: pointer(50), MemoryMB: pointer(32)},
		LogConfig: &api.LogConfig{MaxFiles: pointer(2), MaxFileSizeMB: pointer(2)},
	}
}

func job(id, script string) *api.Job {
	group := api.NewTaskGroup("pod", 1)
	group.AddTask(task(script))
	group.RestartPolicy = &api.RestartPolicy{Attempts: pointer(0), Mode: pointer("fail")}
	job := api.NewBatchJob(id, id, "global", 50)
	job.Datacenters = []string{"*"}
	job.AddTaskGroup(group)
	return job
}

func drive(client *api.Client) error {
	ctx, cancel := context.WithTimeout(context.Background(), 4*patience)
	defer cancel()
	id := fmt.Sprintf("go-client-%d", os.Getpid())
	jobs, allocations := client.Jobs(), client.Allocations()
	defer jobs.Deregister(id, true, nil)

	leader, err := client.Status().Leader()
	if err != nil || leader == "" {
		return fmt.Errorf("leader: %q, %w", leader, err)
	}
	nodes, _, err := client.Nodes().List(&api.QueryOptions{Params: map[string]string{"resources": "true"}})
	if err != nil || len(nodes) == 0 || nodes[0].NodeResources == nil {
		return fmt.Errorf("nodes: %d, %v", len(nodes), err)
	}
	if err := plans(jobs, id); err != nil {
		return err
	}
	events, err := client.EventStream().Stream(ctx, map[api.Topic][]string{api.TopicAllocation: {"*"}}, 0, nil)
	if err != nil {
		return fmt.Errorf("event stream: %w", err)
	}
	script := `echo out; echo err >&2; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.2; done`
	registered, _, err := jobs.EnforceRegister(job(id, script), 0, nil)
	if err != nil || registered.EvalID == "" {
		return fmt.Errorf("register: %v, %w", registered, err)
	}
	if _, _, err := jobs.EnforceRegister(job(id, script), 0, nil); err == nil || !strings.Contains(err.Error(), "job already exists") {
		return fmt.Errorf("registered twice: %v", err)
	}
	if err := heard(events, id); err != nil {
		return err
	}
	allocation, err := running(client, id)
	if err != nil {
		return err
	}
	if err := follows(client, allocation); err != nil {
		return err
	}
	if err := runs(ctx, client, allocation); err != nil {
		return err
	}
	if err := measured(allocations, allocation); err != nil {
		return err
	}
	return stops(client, id, allocation.ID)
}

// plans asks for what fits and for what does not.
func plans(jobs *api.Jobs, id string) error {
	plan, _, err := jobs.Plan(job(id, "true"), false, nil)
	if err != nil || len(plan.FailedTGAllocs) != 0 || plan.Annotations.DesiredTGUpdates["pod"].Place != 1 {
		return fmt.Errorf("plan: %+v, %w", plan, err)
	}
	large := job(id, "true")
	large.TaskGroups[0].Tasks[0].Resources.CPU = pointer(100000000)
	plan, _, err = jobs.Plan(large, false, nil)
	if err != nil || plan.FailedTGAllocs["pod"] == nil || plan.FailedTGAllocs["pod"].DimensionExhausted["cpu"] == 0 {
		return fmt.Errorf("plan of a large job: %+v, %w", plan, err)
	}
	return nil
}

func heard(events <-chan *api.Events, id string) error {
	deadline := time.After(patience)
	for {
		select {
		case <-deadline:
			return fmt.Errorf("no event of %s", id)
		case batch := <-events:
			if batch == nil || batch.Err != nil {
				return fmt.Errorf("event stream: %+v", batch)
			}
			for _, event := range batch.Events {
				allocation, err := event.Allocation()
				if err != nil {
					return fmt.Errorf("event: %w", err)
				}
				if allocation != nil && allocation.JobID == id && allocation.ClientStatus == api.AllocClientStatusRunning {
					return nil
				}
			}
		}
	}
}

// running waits, by blocking queries, until the allocation of a job runs.
func running(client *api.Client, id string) (*api.Allocation, error) {
	index := uint64(0)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		stubs, meta, err := client.Jobs().Allocations(id, false, &api.QueryOptions{WaitIndex: index, WaitTime: time.Second})
		if err != nil {
			return nil, fmt.Errorf("allocations: %w", err)
		}
		index = meta.LastIndex
		for _, stub := range stubs {
			if stub.ClientStatus == api.AllocClientStatusRunning {
				allocation, _, err := client.Allocations().Info(stub.ID, nil)
				return allocation, err
			}
		}
	}
	return nil, fmt.Errorf("%s never ran", id)
}

// follows reads frames until the third line.
func follows(client *api.Client, allocation *api.Allocation) error {
	cancel := make(chan struct{})
	defer close(cancel)
	frames, errors := client.AllocFS().Logs(allocation, true, "main", "stdout", "start", 0, cancel, nil)
	text, deadline := "", time.After(patience)
	for !strings.Contains(text, "line 3\n") {
		select {
		case frame := <-frames:
			if frame == nil {
				return fmt.Errorf("logs ended: %q", text)
			}
			text += string(frame.Data)
		case err := <-errors:
			return fmt.Errorf("logs: %w", err)
		case <-deadline:
			return fmt.Errorf("logs: %q", text)
		}
	}
	if !strings.HasPrefix(text, "out\nline 1\n") {
		return fmt.Errorf("logs: %q", text)
	}
	return nil
}

// runs starts a command that reads, writes to both streams and ends with a code.
func runs(ctx context.Context, client *api.Client, allocation *api.Allocation) error {
	var out, err bytes.Buffer
	command := []string{"/bin/sh", "-c", "cat; echo problem >&2; exit 7"}
	sizes := make(chan api.TerminalSize)
	code, failed := client.Allocations().Exec(ctx, allocation, "main", false, command, io.NopCloser(strings.NewReader("typed")), &out, &err, sizes, nil)
	if failed != nil || code != 7 || out.String() != "typed" || err.String() != "problem\n" {
		return fmt.Errorf("exec: %d, %q, %q, %v", code, out.String(), err.String(), failed)
	}
	return nil
}

// measured reads what the allocation uses. A client without control groups measures no processes.
func measured(allocations *api.Allocations, allocation *api.Allocation) error {
	usage, err := allocations.Stats(allocation, nil)
	if err != nil || usage.ResourceUsage == nil {
		return fmt.Errorf("stats: %+v, %w", usage, err)
	}
	return nil
}

// stops the job, sees its task end, and purges it.
func stops(client *api.Client, id, allocation string) error {
	if _, _, err := client.Jobs().Deregister(id, false, nil); err != nil {
		return fmt.Errorf("stop: %w", err)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		info, _, err := client.Allocations().Info(allocation, nil)
		if err != nil {
			return fmt.Errorf("stopping: %w", err)
		}
		if info.ClientStatus == api.AllocClientStatusComplete && info.TaskStates["main"].State == "dead" {
			break
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("still %s", info.ClientStatus)
		}
	}
	if _, _, err := client.Jobs().Deregister(id, true, nil); err != nil {
		return fmt.Errorf("purge: %w", err)
	}
	if _, _, err := client.Jobs().Info(id, nil); err == nil || !strings.Contains(err.Error(), "job not found") {
		return fmt.Errorf("still there after the purge: %v", err)
	}
	return nil
}

func pointer[T any](value T) *T { return &value }
