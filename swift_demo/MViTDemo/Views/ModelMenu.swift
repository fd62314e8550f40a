import MViTKit
import SwiftUI
import UniformTypeIdentifiers

/// Switches between the models, and opens more.
struct ModelMenu: View {
  let demo: DemoModel
  let open: @MainActor () -> Void

  var body: some View {
    Menu {
      ForEach(demo.models.entries) { entry in
        Button {
          demo.select(entry)
        } label: {
          Label(entry.name, systemImage: symbol(for: entry))
        }
      }
      Divider()
      Button(action: open) {
        Label("Open Model…", systemImage: "folder")
      }
    } label: {
      Label("Models", systemImage: "shippingbox")
    }
    .accessibilityValue(demo.selected?.name ?? localized("none"))
  }

  private func symbol(for entry: ModelEntry) -> String {
    if entry == demo.selected { return "checkmark" }
    return entry.isBundled ? "shippingbox" : "doc"
  }
}

/// What can be opened as a model in Files.
enum ModelFileTypes {
  /// Packages, compiled models, and folders for systems that show a package as a folder.
  static var all: [UTType] {
    let compiled = UTType(ModelFileType.compiledConformance).flatMap {
      UTType(filenameExtension: ModelFileType.compiledSuffix, conformingTo: $0)
    }
    return [UTType(importedAs: ModelFileType.packageIdentifier)] + [compiled].compactMap { $0 }
      + [.folder]
  }
}
