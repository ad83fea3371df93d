// The service controller that cloud controller managers run, with the fake cloud of its own tests: what it hands to a load
// balancer is printed, one JSON object a line, and nothing else is written to standard output.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"

	v1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/cloud-provider/controllers/service"
	fakecloud "k8s.io/cloud-provider/fake"
	"k8s.io/component-base/featuregate"
	controllersmetrics "k8s.io/component-base/metrics/prometheus/controllers"
)

// handOver is a call of the cloud: from now on this load balancer sends traffic to these nodes.
type handOver struct {
	Service string   `json:"service"`
	Nodes   []string `json:"nodes"`
}

func main() {
	kubeconfig := flag.String("kubeconfig", "", "kubeconfig file")
	listen := flag.String("listen", "127.0.0.1:0", "address that says whether it runs")
	flag.Parse()
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		log.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		log.Fatal(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var printing sync.Mutex
	printed := json.NewEncoder(os.Stdout)
	tell := func(call fakecloud.UpdateBalancerCall) {
		printing.Lock()
		defer printing.Unlock()
		if err := printed.Encode(handOver{Service: call.Service.Namespace + "/" + call.Service.Name, Nodes: names(call.Hosts)}); err != nil {
			log.Fatal(err)
		}
	}
	cloud := &fakecloud.Cloud{
		ExternalIP:   net.IPv4(192, 0, 2, 1),
		Exists:       true,
		EnsureCallCb: tell,
		UpdateCallCb: tell,
	}

	shared := informers.NewSharedInformerFactory(client, 0)
	controller, err := service.New(cloud, client, shared.Core().V1().Services(), shared.Core().V1().Nodes(), "test", featuregate.NewFeatureGate())
	if err != nil {
		log.Fatal(err)
	}
	shared.Start(ctx.Done())
	shared.WaitForCacheSync(ctx.Done())
	go controller.Run(ctx, 1, controllersmetrics.NewControllerManagerMetrics("service-controller"))

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	go func() { log.Fatal(http.Serve(listener, http.NotFoundHandler())) }()
	<-ctx.Done()
}

func names(nodes []*v1.Node) []string {
	names := make([]string, 0, len(nodes))
	for _, node := range nodes {
		names = append(names, node.Name)
	}
	return names
}
