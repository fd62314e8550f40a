import SwiftUI

@main
struct MViTDemoApp: App {
  @State private var demo = DemoModel()
  @Environment(\.scenePhase) private var scenePhase

  var body: some Scene {
    WindowGroup {
      ContentView(demo: demo)
        .task { demo.start() }
        // Inactive is the moment in between, such as a look at the notifications.
        .onChange(of: scenePhase, initial: true) { _, phase in
          if phase != .inactive { demo.setForeground(phase == .active) }
        }
    }
  }
}
