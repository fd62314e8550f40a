import SwiftUI

@main
struct MViTDemoApp: App {
  @State private var demo = DemoModel()

  var body: some Scene {
    WindowGroup {
      ContentView(demo: demo)
        .task { demo.start() }
    }
  }
}
